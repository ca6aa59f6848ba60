"""Many processes, faults and virtual days: the production code under one seeded clock."""
