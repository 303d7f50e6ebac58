"""What a framework needs beyond `HFSummaryWriter`, in that framework's own style; each module imports its framework.

A module here is imported by whoever uses it and by nothing else of the package.
"""
