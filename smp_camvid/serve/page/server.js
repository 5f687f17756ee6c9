// Everything that is asked of the server, and how its refusals become sentences.

// Stands after the # of the printed address, which browsers never send by themselves.
const KEY = location.hash.slice(1);

const GONE = "The server does not answer. Is smp-camvid serve still running in its terminal?";

/** What went wrong, in words for the person before the page. */
export class Refused extends Error {}

/** Which models there are, and the largest upload in bytes. */
export const models = () => ask("api/models", "json");

/** Segments a picture: what `Service._segment` describes. */
export const segment = (file, model, signal) =>
  ask(`api/pictures?model=${encodeURIComponent(model)}`, "json", { method: "POST", body: file, signal });

/** The picture as it is drawn, a Blob. */
export const viewPicture = (id, signal) => ask(`api/results/${id}/view.jpg`, "blob", { signal });

/** The class of each drawn pixel. */
export const viewClasses = async (id, signal) =>
  new Uint8Array(await ask(`api/results/${id}/view.classes`, "arrayBuffer", { signal }));

/** A PNG to keep, a Blob; kind is mask, color or overlay. */
export const download = (id, kind, opacity) =>
  ask(`api/results/${id}/${kind}.png?opacity=${opacity}`, "blob");

async function ask(path, form, options = {}) {
  try {
    const response = await fetch(path, { ...options, headers: { "X-Page-Key": KEY } });
    if (!response.ok) throw new Refused(await reasonOf(response));
    const answer = await response[form]();
    if (answer.error) throw new Refused(answer.error);
    return answer;
  } catch (error) {
    if (error instanceof Refused || error.name === "AbortError") throw error;
    throw new Refused(GONE);
  }
}

async function reasonOf(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `The server answered ${response.status}. Try again.`;
  }
}
