from sealwire.stcp.frames import PlainFrameReader

FrameReader = PlainFrameReader
