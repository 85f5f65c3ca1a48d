"""Channel labels through operators: which channels of a graph must be cut together, and which may not be cut."""

from bocr_onnx.groups.index import ChannelGroup, Channels, GroupIndex, Member, Refusal, build_index
from bocr_onnx.groups.records import EVERY, Slot, Work

__all__ = [
    "EVERY",
    "ChannelGroup",
    "Channels",
    "GroupIndex",
    "Member",
    "Refusal",
    "Slot",
    "Work",
    "build_index",
]
