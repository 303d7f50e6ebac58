"""Classes for frameworks that need more than `HFSummaryWriter`, in their own style; each module imports its framework.

No other module of the package imports these; users import the one they need.
"""
