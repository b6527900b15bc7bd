"""The InfernoModel resource: its types, its rules, and the names and labels that follow from it."""
