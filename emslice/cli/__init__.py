"""The command line: parse, call one function of ``service``, print. Never here: know-how."""
