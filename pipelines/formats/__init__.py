"""The formats: bytes that a source wrote → the CSV that the warehouse stages. They know no Django, no connector, no table."""
