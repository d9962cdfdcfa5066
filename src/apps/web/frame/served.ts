/**
 * What `dmalink ui TRACE…` serves beside the page: the traces that it was given.
 *
 * Idea: the server says so in the page itself, so that a page from anywhere else asks no server for anything.
 */
import { openFiles, served } from "./session.ts";

/** Opens what the server was given; nothing where there is none. */
export async function openServed(): Promise<void> {
  const content = document.querySelector<HTMLMetaElement>('meta[name="dmalink-traces"]')?.content;
  if (!content) return;
  const names = JSON.parse(content) as string[];
  served.value = names.length > 0;
  const files: File[] = [];
  for (const [i, name] of names.entries()) {
    const answer = await fetch(`trace/${i}`);
    if (answer.ok) files.push(new File([await answer.blob()], name));
  }
  await openFiles(files);
}
