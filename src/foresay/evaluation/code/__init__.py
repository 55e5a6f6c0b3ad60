"""Problems that are answered with code: the code is run against their tests, and pass@k is counted."""
