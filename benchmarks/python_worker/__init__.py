"""The process that runs one Python contender."""
