/** The page that buttons act on, as it was last chosen in a picture. */
import { type Signal, signal } from "@preact/signals";

export const selected: Signal<{ readonly device: string; readonly page: number } | undefined> = signal(undefined);
