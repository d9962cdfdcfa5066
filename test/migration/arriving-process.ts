/**
 * The other process of two-processes.test.ts: a machine of its own, into which one moves. Descriptor 3 is the link, or the address of a
 * socket is the second argument; what became of it is printed as JSON, after some more work if it runs.
 *
 *     arriving-process.ts '{"guestBytes":…,"leaf":…}' [SOCKET]
 */
import { connect, Socket } from "node:net";
import { MoveTarget } from "../../src/consumers/vfio/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { digestOf } from "./digest.ts";
import { guestOf } from "./guest.ts";
import { nodeLink } from "./node-link.ts";
import { stand } from "./stand.ts";

const { guestBytes, leaf } = JSON.parse(process.argv[2]!) as { guestBytes: number; leaf: number };
const address = process.argv[3];
const place = stand({ guestBytes, layout: vtdSecondStage({ leafSizes: leaf === 0 ? [0] : [0, leaf] }) });
const guest = guestOf(place, false);
const stream = address ? connect(address) : new Socket({ fd: 3 });
const { outcome } = await new MoveTarget(guest.machine, nodeLink(stream)).run();
const arrived = digestOf(guest);
guest.packets = 0; // the same packets come as to the oracle on the other side
if (outcome === "running") guest.work(100, 200);
process.stdout.write(JSON.stringify({ outcome, arrived, later: digestOf(guest), leaks: place.close() }));
stream.destroy();
