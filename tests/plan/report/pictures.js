"use strict";

// Looks at pictures: mean, spread and number of colours of each part, from the top down.

const PARTS = 8;

addEventListener("load", () => {
  const seen = [...document.images].map((picture) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: picture.naturalWidth, height: picture.naturalHeight });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    const height = Math.floor(canvas.height / PARTS);
    return Array.from({ length: PARTS }, (_, part) => {
      const { data } = context.getImageData(0, part * height, canvas.width, height);
      const colours = new Set();
      let sum = 0, squares = 0;
      for (let at = 0; at < data.length; at += 4) {
        const grey = (data[at] + data[at + 1] + data[at + 2]) / 3;
        sum += grey;
        squares += grey * grey;
        colours.add((data[at] >> 4) * 256 + (data[at + 1] >> 4) * 16 + (data[at + 2] >> 4));
      }
      const pixels = data.length / 4, mean = sum / pixels;
      return { mean, spread: Math.sqrt(squares / pixels - mean * mean), colours: colours.size };
    });
  });
  document.getElementById("result").textContent = JSON.stringify(seen);
});
