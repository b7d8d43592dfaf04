"""How events come in from outside: JSON lines and news feeds."""
