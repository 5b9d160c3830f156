"""An endpoint that notices a flood, goes under load, and leaves when it is over; on a clock of its own.

python examples/under_load.py
"""

import sealwire
from sealwire import dtls

server = sealwire.Context(sealwire.PROTOCOL_SERVER)
server.set_psk_server_callback(lambda identity: None)  # knows nobody, so it needs no certificate
endpoint = dtls.Endpoint(server.config)

now = 0.0
while now < 5:  # 500 datagrams a second of nonsense
    endpoint.receive([(b"\x20nonsense", ("192.0.2.1", 1024 + n)) for n in range(50)], now)
    now += 0.1
print("under load:", endpoint.load.on, [attack.value for attack in endpoint.load.attacks])

while (due := endpoint.deadline()) is not None:  # nothing comes any more
    endpoint.wake(due)
for event in endpoint.load.log:
    print(f"{event.at:4.0f} s", "began" if event.began else "ended", event.attack.value, f"({event.rule})")
print("under load:", endpoint.load.on)
