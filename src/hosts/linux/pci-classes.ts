/** Names of PCI classes, as far as people bind such devices. Specified by: PCI Code and ID Assignment specification. */

/** The class of bridges, which nobody binds. */
export const PCI_BRIDGE = 0x06;

const CLASSES: Readonly<Record<number, string>> = {
  257: "IDE controller",
  260: "RAID controller",
  262: "SATA controller",
  263: "SAS controller",
  264: "NVMe controller",
  512: "Ethernet controller",
  519: "InfiniBand controller",
  640: "network controller",
  768: "VGA controller",
  770: "3D controller",
  1027: "audio device",
  1792: "serial controller",
  1920: "communication controller",
  2176: "system peripheral",
  3075: "USB controller",
  3077: "SMBus controller",
  4608: "processing accelerator",
};

/** @param classCode class, subclass, programming interface */
export function pciClassName(classCode: number): string {
  const kind = classCode >>> 8;
  return CLASSES[kind] ?? `class ${kind.toString(16).padStart(4, "0")}`;
}
