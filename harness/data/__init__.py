"""What a run's data are, and official data: fetched, checked, unpacked."""
