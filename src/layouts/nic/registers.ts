/**
 * The simulated network card: registers, commands and messages that its driver and the card share.
 *
 * The card has a physical function, which the machine's owner drives, and virtual functions, one for each guest. Here is the
 * first one's side: commands by register, each done when the write returns, but for saving, which ends with an
 * interrupt, whose vector is the function's number. Lists go through a mailbox of one page in memory. Numbers are little endian, but page lists, which are big.
 * Specified by: this project; the division of work is that of mlx5's migration commands.
 */

/** Registers of the physical function, in BAR 0; 32 bits each. */
export const NIC_REGISTER = {
  /** {@link NIC_IDENTITY}. */
  IDENTITY: 0x00,
  /** Bits of MIGRATION_FLAGS that every function has. */
  FLAGS: 0x04,
  /** Ranges that a log can have in bits 15:0, log2 of its smallest unit in 23:16, of its largest in 31:24. */
  LOG_LIMITS: 0x08,
  /** Pages that a key can have. */
  MAX_KEY_PAGES: 0x0c,
  /** DMA address of the mailbox. */
  MAILBOX_LOW: 0x10,
  MAILBOX_HIGH: 0x14,
  /** Written: runs the command with the arguments that are there. */
  COMMAND: 0x18,
  /** What became of it: one of {@link NIC_STATUS}. */
  STATUS: 0x1c,
  /** Eight of each. */
  ARGUMENT: 0x20,
  RESULT: 0x40,
  /** Of the chunk that was saved last, {@link NIC_SAVE_STRIDE} bytes for each function: status, bytes, bytes still to come. */
  SAVE_STATUS: 0x100,
  SAVE_BYTES: 0x104,
  SAVE_LEFT: 0x108,
} as const;

/** Bytes from one function's save registers to the next one's. */
export const NIC_SAVE_STRIDE = 16;
/** Virtual functions that a card can have. */
export const NIC_MAX_FUNCTIONS = 64;

/** What {@link NIC_REGISTER}.IDENTITY reads. */
export const NIC_IDENTITY = 0x43494e53;
/** Bytes of the mailbox. */
export const NIC_MAILBOX_BYTES = 4096;
/** Entries of a page list in one mailbox. */
export const NIC_MAILBOX_ADDRESSES: number = NIC_MAILBOX_BYTES / 8;
/** Bytes of a message of a log's report: addresses of 8 bytes. */
export const NIC_MESSAGE_BYTES = 65_536;

/** Commands; arguments and results in order. `function`: number of a virtual function. */
export const NIC_COMMAND = {
  /** pages → key. The list follows by {@link NIC_COMMAND}.FILL_KEY. */
  CREATE_KEY: 1,
  /** key, first page, pages: so many addresses are in the mailbox. */
  FILL_KEY: 2,
  /** key */
  DESTROY_KEY: 3,
  /** function, {@link NIC_PART} */
  SUSPEND: 4,
  /** function, {@link NIC_PART} */
  RESUME: 5,
  /** function, {@link NIC_IMAGE} → bytes (2 words), how often the function began anew */
  QUERY_IMAGE: 6,
  /** function, {@link NIC_IMAGE} → bytes (2 words). Takes the picture that SAVE_CHUNK gives out. */
  BEGIN_IMAGE: 7,
  /** function, key, capacity in bytes. Ends with an interrupt. */
  SAVE_CHUNK: 8,
  /** function. No chunk is under way any more, and changes are not kept any more. */
  END_SAVE: 9,
  /** function */
  BEGIN_LOAD: 10,
  /** function, key, bytes */
  LOAD_CHUNK: 11,
  /** function. All of it must have come. */
  END_LOAD: 12,
  /** function, ranges, log2 of the unit; ranges of 16 bytes (first, last) in the mailbox */
  CREATE_LOG: 13,
  /** function */
  DESTROY_LOG: 14,
  /** function, address (2 words), length (2 words). Begins a report. */
  REPORT_LOG: 15,
  /** function, key, message number (where to) → addresses, 1 if there are more */
  NEXT_MESSAGE: 16,
  /** function. As it was when it was plugged in. */
  RESET: 17,
} as const;

/** Parts of a function that can be suspended: what it begins, and what it answers. */
export const NIC_PART = { INITIATOR: 1, RESPONDER: 2 } as const;

/** Pictures of a function: everything, or what changed since the last one. */
export const NIC_IMAGE = { FULL: 0, INCREMENT: 1 } as const;

/** What became of a command. */
export const NIC_STATUS = {
  OK: 0,
  BAD_COMMAND: 1,
  BAD_ARGUMENT: 2,
  BAD_STATE: 3,
  NO_ROOM: 4,
  /** What was to be loaded is no image of this function, or not all of it. */
  BAD_IMAGE: 5,
  /** Memory could not be reached. */
  TRANSFER: 6,
  /** A log that cannot be trusted. */
  LOG_LOST: 7,
  /** The card has its reasons. */
  REFUSED: 8,
} as const;

/** Registers of a virtual function, in its BAR 0: what its guest drives. */
export const NIC_FUNCTION_REGISTER = {
  /** 1: packets are received. Written 0x80: begin anew. */
  CONTROL: 0x00,
  /** DMA address of the ring, whole pages, a page for each packet: its low word. */
  RING_LOW: 0x04,
  /** High word of the same. */
  RING_HIGH: 0x08,
  /** Pages of the ring. */
  RING_PAGES: 0x0c,
  /** Packets received, read only: the low word. */
  RECEIVED_LOW: 0x10,
  /** High word of the same. */
  RECEIVED_HIGH: 0x14,
  /** Bus address that this function writes to by itself, another function's inbox: the low word. */
  PEER_LOW: 0x18,
  /** High word of the same. */
  PEER_HIGH: 0x1c,
} as const;

/** Value of CONTROL that begins anew. */
export const NIC_BEGIN_ANEW = 0x80;
/** Offset of the inbox in a virtual function's BAR 0: what peers write to. */
export const NIC_INBOX = 0x1000;
/** Bytes of the inbox. */
export const NIC_INBOX_BYTES = 4096;
