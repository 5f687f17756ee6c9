// The classes as colours over the picture.

/** A canvas that shows all classes, or some of them. */
export class Layer {
  constructor(canvas) {
    this.canvas = canvas;
    this.classes = new Uint8Array();
  }

  /** classes: the class of each pixel, row by row; colors: [red, green, blue] of each class. */
  show(classes, [height, width], colors) {
    Object.assign(this.canvas, { width, height });
    this.classes = classes;
    this.colors = colors;
    this.paint(new Set());
  }

  /** Only the classes in `chosen`; all when there is none. */
  paint(chosen) {
    const visible = (index) => chosen.size === 0 || chosen.has(index);
    const color = new Uint32Array(256);
    const bytes = new Uint8Array(color.buffer);
    this.colors.forEach((rgb, index) => bytes.set([...rgb, visible(index) ? 255 : 0], 4 * index));
    const { width, height } = this.canvas;
    const pixels = new Uint32Array(width * height);
    for (let i = 0; i < pixels.length; i++) pixels[i] = color[this.classes[i]];
    const image = new ImageData(new Uint8ClampedArray(pixels.buffer), width, height);
    this.canvas.getContext("2d").putImageData(image, 0, 0);
  }

  /** The class at a place given as shares of width and height. */
  at(x, y) {
    const { width, height } = this.canvas;
    const column = Math.min(width - 1, Math.max(0, Math.floor(x * width)));
    const row = Math.min(height - 1, Math.max(0, Math.floor(y * height)));
    return this.classes[row * width + column];
  }
}
