"""The remote end of a push. The only room that calls `huggingface_hub`; knows no folder and no schedule."""
