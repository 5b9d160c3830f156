from sealwire.stcp.lane import PlainLane, PlainQueues, PlainSending

Queues = PlainQueues
Sending = PlainSending
Lane = PlainLane
