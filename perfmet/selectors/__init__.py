"""What the pages of performance print: jobs, sensors of a day, one sensor, the health board, the map. Only reading, in a fixed number of queries."""
