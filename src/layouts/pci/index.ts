/** What PCI itself lays out: names on the bus, base addresses, access control. */
export { ACS } from "./access-control.ts";
export { barBusAddress } from "./base-address.ts";
export { requesterId, requesterName } from "./requester.ts";
