/**
 * What `dmalink ui TRACE…` serves beside the page: the traces that it was given.
 *
 * Idea: the server says so in the page itself, so that a page from anywhere else asks no server for anything.
 */
import { openFiles, openLonger } from "./session.ts";

/** Between two looks at whether a trace has grown. */
const LOOK_MS = 2000;

const told = (name: string): string | undefined =>
  document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`)?.content;

/** Opens what the server was given; nothing where there is none. */
export async function openServed(): Promise<void> {
  const content = told("dmalink-traces");
  if (!content) return;
  const names = JSON.parse(content) as string[];
  const files: File[] = [];
  for (const [i, name] of names.entries()) {
    const answer = await fetch(`trace/${i}`);
    if (answer.ok) files.push(new File([await answer.blob()], name));
  }
  await openFiles(files);
  if (told("dmalink-follow") && files[0]) setTimeout(follow, LOOK_MS, files[0]);
}

/** Asks for what was written behind the end of the first trace, and shows the longer one; again and again. */
async function follow(trace: File): Promise<void> {
  let longer = trace;
  try {
    const answer = await fetch("trace/0", { headers: { Range: `bytes=${trace.size}-` } });
    const more = answer.status === 206 || trace.size === 0 ? await answer.blob() : undefined;
    if (more && more.size > 0) {
      longer = new File([trace, more], trace.name);
      await openLonger(longer);
    }
  } catch {
    return; // the server has ended
  }
  setTimeout(follow, LOOK_MS, longer);
}
