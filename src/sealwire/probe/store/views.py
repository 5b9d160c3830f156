"""The ready views over a store's tables: what people ask first, in SQL they can read and copy."""

from __future__ import annotations

from typing import Final

_TALKERS: Final = """
select address, count(*) flows, sum(sent) sent_bytes, sum(received) received_bytes,
       sum(packets) packets, max(ended) last_seen
from (select source address, forward_wire_bytes sent, backward_wire_bytes received,
             forward_packets::hugeint + backward_packets packets, ended from flows
      union all
      select destination, backward_wire_bytes, forward_wire_bytes,
             forward_packets::hugeint + backward_packets, ended from flows)
group by address order by sum(sent) + sum(received) desc, address
"""
_PROTOCOLS: Final = """
select case protocol when 1 then 'icmp' when 6 then 'tcp' when 17 then 'udp' when 58 then 'icmp6'
            when 132 then 'sctp' else protocol::varchar end transport,
       case application when '' then 'unknown' else application end application,
       count(*) flows, sum(forward_packets::hugeint + backward_packets) packets,
       sum(forward_wire_bytes::hugeint + backward_wire_bytes) bytes, max(ended) last_seen
from flows group by 1, 2 order by bytes desc, 1, 2
"""
_EXPIRING: Final = """
select subject, issuer, not_after, date_diff('day', now()::timestamp, not_after::timestamp) days_left,
       arg_max(server_name, time) server_name, arg_max(destination, time) destination,
       arg_max(destination_port, time) port, count(*) seen, max(time) last_seen, sha256,
       arg_max("row", time) "row"
from certificates where subject <> '' and not_after < now()::timestamp + interval 30 day
group by subject, issuer, not_after, sha256 order by not_after
"""
_NEW_JA4: Final = """
select ja4, min(ended) first_seen, count(*) flows, arg_min(source, ended) source,
       arg_min(server_name, ended) server_name, arg_min("row", ended) "row"
from flows where ja4 <> '' group by ja4
having min(ended)::timestamp > (select max(ended)::timestamp - interval 1 day from flows)
order by first_seen desc
"""
_GAPS: Final = """
select probe, time, reason, since, until, lost_events, gap_first_event first_event,
       gap_last_event last_event, gap_first_segment first_segment, gap_last_segment last_segment, "row"
from events where event = 'gap'
union all by name
select probe, sealed time, 'not here' reason, first_event - before_event - 1 lost_events,
       before_event + 1 first_event, first_event - 1 last_event,
       before_segment + 1 first_segment, segment - 1 last_segment
from (select *, lag(last_event) over chain before_event, lag(segment) over chain before_segment
      from segments window chain as (partition by probe order by segment))
where segment <> before_segment + 1 or first_event <> before_event + 1
order by time
"""
_PROBES: Final = """
with latest as (select probe, max(segment) segment, arg_max(last_event, segment) last_event,
                       max(sealed) sealed, max(coalesce(received, sealed)) received,
                       arg_max(heartbeat_s, segment) heartbeat_s, sum(flows) flows,
                       sum(bytes) bytes
                from segments group by probe)
select probe, segment, sealed last_sealed, received last_received, heartbeat_s,
       stopped is not null stopped,
       date_diff('second', received::timestamp, now()::timestamp) silent_s,
       stopped is null and silent_s > 2 * heartbeat_s + 5 late, flows, bytes
from latest left join (select probe, sequence last_event, true stopped from events where event = 'stop')
     using (probe, last_event)
order by probe
"""

#: Name, what it shows, and the question.
VIEWS: Final[dict[str, tuple[str, str]]] = {
    "top_talkers": ("addresses by bytes sent and received", _TALKERS),
    "protocols": ("what was spoken, by bytes", _PROTOCOLS),
    "expiring": ("certificates seen that expire within 30 days, or have", _EXPIRING),
    "new_ja4": ("clients' fingerprints first seen in the latest day that has flows", _NEW_JA4),
    "gaps": ("what probes declared missing, and segments that are not here", _GAPS),
    "probes": ("each probe: how far it has come, whether it is late", _PROBES),
    "late_probes": (
        "probes that should have been heard of",
        "select * exclude (late) from probes where late",
    ),
}
