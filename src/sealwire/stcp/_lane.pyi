from sealwire.stcp.frames import PlainFrameReader
from sealwire.stcp.lane import PlainLane, PlainQueues, PlainSending

FrameReader = PlainFrameReader
Queues = PlainQueues
Sending = PlainSending
Lane = PlainLane
