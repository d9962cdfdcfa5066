/** Devices that can move to another machine. */
export { BareDevice, type BareDeviceOptions } from "./bare-device.ts";
export * from "./nic/index.ts";
export { SerialCard, type SerialCardOptions } from "./serial-card.ts";
export { UART_STATE_BYTES, Uart } from "./uart.ts";
