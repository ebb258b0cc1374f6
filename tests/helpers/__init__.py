"""What the tests share: a small task, ways to run it, and things that go wrong on purpose."""
