"""Many runs: suites are planned, orders go out to an executor, outcomes come back."""
