"""Conversion of messages between the parts of the contract and the forms of models and frameworks.

A module of a form has `split`, which maps a value in the form to the role and the parts of a
message, and `show`, which maps any message to valid values in the form. `stored` keeps what the
parts cannot represent.
"""
