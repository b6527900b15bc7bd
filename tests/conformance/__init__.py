"""The promises of the API document and of the contract, section by section, against a real server.

`promises.yaml` names each of them, `@covers` says which ones a test holds the server to, and `test_promises.py` that none
is left out.
"""
