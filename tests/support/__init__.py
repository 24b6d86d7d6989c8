"""What several test files share: small victims, made-up results, servers and killers of processes."""
