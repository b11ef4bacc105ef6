"""Real servers for tests: throwaway processes on free ports, one module per kind of server."""
