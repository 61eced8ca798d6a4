// A link of so many milliseconds there and back: forwards TCP, from a thread of its own, since what is measured holds up
// the main one.
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

export type Link = { readonly host: string; readonly port: number; readonly milliseconds: number };

/** The port on 127.0.0.1 where the other end of a link is to be had, and how to end that. */
export async function slowLink(link: Link): Promise<{ port: number; close: () => Promise<unknown> }> {
  const worker = new Worker(new URL(import.meta.url), { workerData: link });
  const port = await new Promise<number>((resolve, reject) => worker.once("message", resolve).once("error", reject));
  return { port, close: () => worker.terminate() };
}

export function serve({ host, port, milliseconds }: Link, ready: (port: number) => void): Server {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
    // TCP's handshake takes a round trip as well.
    setTimeout(() => {
      const far = connect({ host, port, allowHalfOpen: true, noDelay: true });
      carry(near, far, milliseconds);
      carry(far, near, milliseconds);
    }, milliseconds);
  });
  return server.listen(0, "127.0.0.1", () => ready((server.address() as AddressInfo).port));
}

/** Each piece arrives half a round trip after it was sent, whatever else is under way. */
function carry(from: Socket, to: Socket, milliseconds: number): void {
  const later = (deliver: () => void) => setTimeout(deliver, milliseconds / 2);
  from.on("data", (piece) => later(() => to.write(piece)));
  from.on("end", () => later(() => to.end()));
  from.on("error", () => to.destroy());
}

if (!isMainThread && workerData?.milliseconds) serve(workerData, (port) => parentPort?.postMessage(port));
