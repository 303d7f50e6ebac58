"""Classes for frameworks that need more than `HFSummaryWriter`, in their own style; each module imports its framework.

A module here is imported by whoever uses it and by nothing else of the package.
"""
