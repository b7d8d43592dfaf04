"""What every package of reki agrees on: records, topics, ports, errors, settings. No business I/O."""
