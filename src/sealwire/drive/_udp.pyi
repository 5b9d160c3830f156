from sealwire.drive.batches import PlainReceiver, plain_send

class Receiver(PlainReceiver): ...

send = plain_send
