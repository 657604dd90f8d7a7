"""The words themselves: English to Simplified Chinese. A test finds what is missing."""

TABLES = {"zh_HANS": {}}
