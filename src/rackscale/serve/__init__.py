"""The server: processes, Dynamo's HTTP frontend, and the clock."""
