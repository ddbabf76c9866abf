"""The shop's database: its schema, and the state that every test starts from."""
