"""What the benchmarks share: processes and their costs, the proxies' configurations, loads, and tables."""
