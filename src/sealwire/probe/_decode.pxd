# One packet's headers, compiled: the answers of `decode`, whose words explain it.
#
# Everything works on (data, n): nothing is read at or behind data + n.  The result is 0 and a filled
# Packet, or -1 - reason.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef enum:
    # PacketDiscard, as answers
    FILTERED = -1
    UNSUPPORTED_LINK = -2
    TRUNCATED_LINK = -3
    NOT_IP = -4
    TRUNCATED_IP = -5
    BAD_IP = -6
    BAD_EXTENSIONS = -7
    TRUNCATED_TRANSPORT = -8
    STRAY_FRAGMENT = -9
    UNKNOWN_INTERFACE = -10
    REASONS = 10

    MAX_TAGS = 8
    MAX_LABELS = 16
    MAX_EXTENSIONS = 12
    MAX_TUNNELS = 4
    MAX_OFFLOADED_BYTES = 0xFFFFFF
    MAX_PAYLOAD = 0xFFFF
    NO_VLAN = 0xFFFF
    VXLAN_PORT = 4789
    GTPU_PORT = 2152


cdef struct Packet:
    uint8_t source[16]
    uint8_t destination[16]
    uint16_t source_port
    uint16_t destination_port
    uint16_t key_source
    uint16_t key_destination
    uint8_t version
    uint8_t protocol
    uint8_t one_way
    uint8_t tcp
    uint8_t flags
    uint8_t ttl
    uint8_t tos
    uint8_t fragment
    uint32_t ip_bytes
    uint32_t payload_bytes
    uint32_t sequence
    uint32_t acknowledgment
    uint32_t fragment_id
    uint16_t window
    uint16_t vlan
    uint16_t vlan_inner
    # Where the payload is in the data, and how much of it is there.
    int64_t payload_at
    uint32_t captured


cdef struct Found:
    int64_t at
    int version
    uint16_t vlan
    uint16_t vlan_inner


cdef inline uint32_t u16(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 8) | p[1]


cdef inline uint32_t u32(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef inline int icmp_answer(int protocol, int kind) noexcept nogil:
    # The type that answers `kind`, or -1 (Community ID specification).
    if protocol == 1:
        if kind == 8:
            return 0
        if kind == 0:
            return 8
        if kind == 13 or kind == 15 or kind == 17:
            return kind + 1
        if kind == 14 or kind == 16 or kind == 18:
            return kind - 1
        if kind == 9:
            return 10
        return 9 if kind == 10 else -1
    if kind == 128 or kind == 133 or kind == 135 or kind == 130 or kind == 144 or kind == 139:
        return kind + 1
    if kind == 129 or kind == 134 or kind == 136 or kind == 131 or kind == 145 or kind == 140:
        return kind - 1
    return -1


cdef inline void set_icmp(Packet* packet, int kind, int code) noexcept nogil:
    cdef int answer = icmp_answer(packet.protocol, kind)
    packet.source_port = <uint16_t>kind
    packet.destination_port = <uint16_t>code
    packet.key_source = <uint16_t>kind
    packet.key_destination = <uint16_t>(code if answer < 0 else answer)
    packet.one_way = answer < 0


cdef inline int ether(const uint8_t* data, int64_t n, int64_t at, int64_t behind, bint tunnels, Found* found) noexcept nogil:
    cdef uint32_t kind = u16(data + at)
    cdef int i, tags = 0
    at = behind if behind else at + 2
    found.vlan = NO_VLAN
    found.vlan_inner = NO_VLAN
    for i in range(MAX_TAGS):
        if kind != 0x8100 and kind != 0x88A8 and kind != 0x9100:
            break
        if n < at + 4:
            return TRUNCATED_LINK
        if tags == 0:
            found.vlan = <uint16_t>(u16(data + at) & 0xFFF)
        elif tags == 1:
            found.vlan_inner = <uint16_t>(u16(data + at) & 0xFFF)
        tags += 1
        kind = u16(data + at + 2)
        at += 4
    if kind == 0x8847 or kind == 0x8848:
        for i in range(MAX_LABELS):
            if n < at + 4:
                return TRUNCATED_LINK
            at += 4
            if data[at - 2] & 1:
                if n > at and (data[at] >> 4 == 4 or data[at] >> 4 == 6):
                    found.at = at
                    found.version = data[at] >> 4
                    return 0
                return NOT_IP
        return NOT_IP
    if kind == 0x8864 and tunnels:
        if n < at + 8:
            return TRUNCATED_LINK
        kind = u16(data + at + 6)
        kind = 0x0800 if kind == 0x0021 else 0x86DD if kind == 0x0057 else 0
        at += 8
    found.at = at
    if kind == 0x0800:
        found.version = 4
        return 0
    found.version = 6
    return 0 if kind == 0x86DD else NOT_IP


cdef inline int link_layer(const uint8_t* data, int64_t n, uint32_t link, bint tunnels, Found* found) noexcept nogil:
    cdef int family
    if link == 1:
        return TRUNCATED_LINK if n < 14 else ether(data, n, 12, 0, tunnels, found)
    if link == 113:
        return TRUNCATED_LINK if n < 16 else ether(data, n, 14, 0, tunnels, found)
    if link == 276:
        return TRUNCATED_LINK if n < 20 else ether(data, n, 0, 20, tunnels, found)
    found.vlan = NO_VLAN
    found.vlan_inner = NO_VLAN
    if link == 0 or link == 108:
        if n < 4:
            return TRUNCATED_LINK
        family = data[0] | data[3]
        if data[1] or data[2] or not (family == 2 or family == 10 or family == 24 or family == 28 or family == 30):
            return NOT_IP
        found.at = 4
        found.version = 4 if family == 2 else 6
        return 0
    if link == 101 or link == 12 or link == 14 or link == 228 or link == 229:
        if n < 1:
            return TRUNCATED_IP
        found.at = 0
        found.version = data[0] >> 4
        return 0
    return UNSUPPORTED_LINK


cdef inline int64_t extensions(const uint8_t* data, int64_t n, int64_t at, Packet* packet) noexcept nogil:
    # Where the transport header begins, or a reason.
    cdef int64_t here = at + 40
    cdef int i, kind
    cdef uint32_t offset
    for i in range(MAX_EXTENSIONS):
        kind = packet.protocol
        if kind == 0 or kind == 43 or kind == 60 or kind == 135 or kind == 139 or kind == 140 or kind == 44 or kind == 51:
            if n < here + 8:
                return BAD_EXTENSIONS
            packet.protocol = data[here]
            if kind == 44:
                offset = u16(data + here + 2)
                packet.fragment = 2 if offset & 0xFFF8 else 1 if offset & 1 else 0
                packet.fragment_id = u32(data + here + 4)
                here += 8
                if packet.fragment == 2:
                    return here
            elif kind == 51:
                here += (<int64_t>data[here + 1] + 2) * 4
            else:
                here += (<int64_t>data[here + 1] + 1) * 8
        else:
            return here
    return BAD_EXTENSIONS


cdef inline void set_payload(Packet* packet, int64_t at, int64_t end) noexcept nogil:
    packet.payload_at = at
    packet.captured = <uint32_t>min(max(end - at, 0), <int64_t>MAX_PAYLOAD) if packet.fragment == 0 else 0


cdef inline bint ported(int protocol) noexcept nogil:
    return protocol == 6 or protocol == 17 or protocol == 132 or protocol == 136 or protocol == 33


cdef inline int decode(const uint8_t* data, int64_t n, uint32_t link, uint32_t wire_bytes, bint tunnels, Packet* packet) noexcept nogil:
    cdef Found found, inner
    cdef int depth = MAX_TUNNELS if tunnels else 0
    cdef int status = link_layer(data, n, link, tunnels, &found)
    cdef Packet attempt
    cdef int64_t end, wire = wire_bytes
    if status < 0:
        return status
    status = ip_packet(data, n, found.at, found.version, wire, packet, &end)
    if status < 0:
        return status
    # A tunnel is entered as long as what is inside can be read; else its outside is the packet.
    while depth > 0 and status > 0:
        inner.at = status
        status = step_inside(data, end, packet, &inner)
        if status < 0:
            break
        status = ip_packet(data, end, inner.at, inner.version, end, &attempt, &end)
        if status < 0:
            break
        packet[0] = attempt
        depth -= 1
    packet.vlan = found.vlan
    packet.vlan_inner = found.vlan_inner
    return 0


cdef inline int step_inside(const uint8_t* data, int64_t end, Packet* packet, Found* inner) noexcept nogil:
    # Where the packet inside begins, from inner.at, the beginning of the transport header.
    cdef int64_t at = inner.at
    cdef uint32_t flags, kind
    if packet.fragment != 0:
        return -1
    if packet.protocol == 4 or packet.protocol == 41:
        inner.version = 4 if packet.protocol == 4 else 6
        return 0
    if packet.protocol == 47:
        if end < at + 4:
            return -1
        flags = u16(data + at)
        if flags & 0x4007:
            return -1
        kind = u16(data + at + 2)
        at += 4 + 4 * <int64_t>((flags >> 15 & 1) + (flags >> 13 & 1) + (flags >> 12 & 1))
        inner.at = at
        if kind == 0x0800 or kind == 0x86DD:
            inner.version = 4 if kind == 0x0800 else 6
            return 0
        if kind == 0x6558 and end >= at + 14:
            return ether(data, end, at + 12, 0, True, inner)
        return -1
    if packet.protocol == 17:
        at += 8
        if packet.destination_port == VXLAN_PORT and end >= at + 22 and data[at] & 0x08:
            return ether(data, end, at + 8 + 12, 0, True, inner)
        if packet.destination_port == GTPU_PORT and end >= at + 8:
            if data[at] >> 4 == 3 and data[at + 1] == 255 and not data[at] & 0x04:
                at += 12 if data[at] & 0x03 else 8
                inner.at = at
                inner.version = data[at] >> 4 if end > at else 0
                return 0
    return -1


cdef inline int ip_packet(const uint8_t* data, int64_t n, int64_t at, int version, int64_t wire, Packet* packet, int64_t* end_out) noexcept nogil:
    # Where the transport header begins (above 0), or a reason; `end_out` is where it ends.
    cdef int64_t total, header, here, end, claimed, length
    cdef uint32_t fragment
    if n <= at:
        return TRUNCATED_IP
    if data[at] >> 4 != version:
        return BAD_IP
    memset(packet, 0, sizeof(Packet))
    packet.version = <uint8_t>version
    packet.vlan = NO_VLAN
    packet.vlan_inner = NO_VLAN
    if version == 4:
        if n < at + 20:
            return TRUNCATED_IP
        header = (data[at] & 0xF) * 4
        total = u16(data + at + 2)
        if total == 0:
            total = min(max(wire - at, 0), MAX_OFFLOADED_BYTES)
        if total < header:
            return BAD_IP
        if n < at + header:
            return TRUNCATED_IP
        fragment = u16(data + at + 6)
        packet.protocol = data[at + 9]
        memcpy(packet.source, data + at + 12, 4)
        memcpy(packet.destination, data + at + 16, 4)
        packet.ttl = data[at + 8]
        packet.tos = data[at + 1]
        packet.fragment = 2 if fragment & 0x1FFF else 1 if fragment & 0x2000 else 0
        packet.fragment_id = u16(data + at + 4)
        here = at + header
    elif version == 6:
        if n < at + 40:
            return TRUNCATED_IP
        total = u16(data + at + 4)
        if total == 0 and data[at + 6] != 59:
            total = min(max(wire - at - 40, 0), MAX_OFFLOADED_BYTES)
        total += 40
        packet.protocol = data[at + 6]
        memcpy(packet.source, data + at + 8, 16)
        memcpy(packet.destination, data + at + 24, 16)
        packet.ttl = data[at + 7]
        packet.tos = <uint8_t>((data[at] & 0xF) << 4 | data[at + 1] >> 4)
        here = extensions(data, n, at, packet)
        if here < 0:
            return <int>here
    else:
        return BAD_IP
    packet.ip_bytes = <uint32_t>total
    end = min(n, at + total)
    end_out[0] = end
    claimed = max(at + total - here, 0)
    packet.payload_bytes = <uint32_t>claimed
    if packet.fragment == 2:
        return <int>here
    if ported(packet.protocol):
        if end < here + 4:
            return TRUNCATED_TRANSPORT
        packet.source_port = <uint16_t>u16(data + here)
        packet.destination_port = <uint16_t>u16(data + here + 2)
        packet.key_source = packet.source_port
        packet.key_destination = packet.destination_port
        if packet.protocol == 6:
            header = 20
            if end >= here + 14:
                header = max((data[here + 12] >> 4) * 4, 20)
                packet.flags = data[here + 13]
            if end >= here + 16:
                packet.tcp = 1
                packet.sequence = u32(data + here + 4)
                packet.acknowledgment = u32(data + here + 8)
                packet.window = <uint16_t>u16(data + here + 14)
        else:
            header = 12 if packet.protocol == 132 or packet.protocol == 33 else 8
            if packet.protocol == 17 and end >= here + 6:
                length = u16(data + here + 4)
                if length >= 8:
                    end = min(end, here + length)
        packet.payload_bytes = <uint32_t>max(claimed - header, 0)
        set_payload(packet, here + header, end)
    elif packet.protocol == 1 or packet.protocol == 58:
        if end < here + 2:
            return TRUNCATED_TRANSPORT
        set_icmp(packet, data[here], data[here + 1])
        packet.payload_bytes = <uint32_t>max(claimed - 8, 0)
        set_payload(packet, here + 8, end)
    return <int>here
