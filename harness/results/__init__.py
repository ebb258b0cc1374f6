"""What runs leave behind: records, the folder that holds them, and their summary for people."""
