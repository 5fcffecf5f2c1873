"""The process and the other ranks: start, communication, agreement, stopping, stalls."""
