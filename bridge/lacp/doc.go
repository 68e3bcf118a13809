// Package lacp is the gateway's end of the Link Aggregation Control Protocol (IEEE 802.1AX-2014 section 6.4), by which a site's switch
// learns within three seconds that a gateway no longer carries, though its cable is whole, and at once if the gateway says so.
//
// It is pure: time and bytes come in, bytes and deadlines go out. There is one Port for each NIC, which is an actor, active, asks for
// the short timeout, and is alone in its aggregator. To the switch all gateways of an attachment are one device with one aggregation: they say
// the same System and Key, each with another Port number.
//
//	switch ══ cable ══ gateway 1   system 32768,02:...   key 1   port 3
//	       ══ cable ══ gateway 2   system 32768,02:...   key 1   port 7
//
// What the port has heard (section 6.4.12):
//
//	             carrier       +---------+   nothing for 3 s   +-----------+
//	disabled ----------------> | expired | ------------------> | defaulted |   partner: none
//	   ^                       +---------+                     +-----------+
//	   | no carrier    a LACPDU |   ^ nothing for 3 s                | a LACPDU
//	   |                        v   |                                |
//	   +-- from every state   +---------+ <--------------------------+
//	                          | current | --+ a LACPDU
//	                          +---------+ <-+
//
// What it says of itself, with independent control of both directions (section 6.4.15):
//
//	             selected             2 s              partner in sync           partner collects
//	+----------+          +---------+     +----------+                 +------------+           +--------------+
//	| detached | -------> | waiting | --> | attached | --------------> | collecting | --------> | distributing |
//	+----------+          +---------+     +----------+ <-------------- +------------+ <-------- +--------------+
//	      ^                    |               |          otherwise                  otherwise
//	      +--------------------+---------------+ not selected: within the same call, from every state
//
// It is in sync from attached on. It is selected while it is ready, and its partner is known, aggregates, and is another system. A gateway that
// cannot carry is not ready. The standard lets a port without partner be a link of its own; this one is none then, since what comes in by
// two such links comes twice.
//
// When it speaks (sections 6.4.13, 6.4.16): every second, or every 30 s if the partner asks for no more; and at once if something
// has changed, or the partner has it wrong, but at most three times in a second.
//
// A LACPDU, after the header with EtherType 0x8809 (section 6.4.2.3); it is never tagged:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+---------------+---------------+---------------+---------------+
//	|   subtype 1   |   version 1   |    actor 1    |   length 20   |
//	+---------------+---------------+---------------+---------------+
//	|        system priority        |           system              |
//	+-------------------------------+                               |
//	|                                                               |
//	+-------------------------------+-------------------------------+
//	|              key              |         port priority         |
//	+-------------------------------+---------------+---------------+
//	|             port              |     state     |       0       |
//	+-------------------------------+---------------+---------------+
//	|               0               |   partner 2   |   length 20   |
//	+-------------------------------+---------------+---------------+
//	|  18 bytes of the partner, as of the actor                     ~
//	+---------------+---------------+-------------------------------+
//	|  collector 3  |   length 16   |       maximum delay           |
//	+---------------+---------------+-------------------------------+
//	|  12 bytes of 0, terminator 0, length 0, 50 bytes of 0         ~
//	+---------------------------------------------------------------+
//
// The state is, from the lowest bit: activity, short timeout, aggregation, in sync, collecting, distributing, defaulted, expired.
//
// A marker request (section 6.5, subtype 2) is answered; none is sent.
//
// Nothing here is authentic. Switches keep these frames to one cable, so whoever can send one can as well pull it. What he says
// makes the gateway leave or join, and never more than it could carry anyway.
package lacp
