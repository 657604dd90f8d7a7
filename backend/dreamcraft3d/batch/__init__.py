"""Batches: hundreds of items from one manifest, each found again in the morning, whatever happened in the night.

    manifest (folder, CSV or JSONL) -> tasks -> worker processes -> OUT/items/ID/result.json (commit) -> summary

An item is *committed* when its ``result.json`` is there, which is written last and names the hash of every other file.
``journal.jsonl`` tells the story; ``batch.lock`` says who works in the folder. Nothing here imports torch, except the
worker's engine, in its own process.
"""
