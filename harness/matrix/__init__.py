"""Many runs: a suite is planned, an executor runs its jobs, and their outcomes are collected."""
