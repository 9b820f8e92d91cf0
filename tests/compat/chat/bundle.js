'use strict';
// The npm packages of pomelo's JavaScript client as one script for a page: each in the wrapper that a bundler puts around
// a module, unmodified. protobuf: with the codec, under the name that the client calls (pomelonode/pomelo-jsclient-websocket#17).
const fs = require('fs');
const path = require('path');

const text = (name, file) =>
  fs.readFileSync(path.join(path.dirname(require.resolve(name + '/package.json')), file), 'utf8');
const wrap = (global, source) =>
  `(function () { var module = { exports: {} };\n(function (module, exports) {\n${source}\n}).call(window, module, module.exports);\n` +
  `${global ? `window.${global} = module.exports;` : ''} })();\n`;

exports.bundle = ({ protobuf }) =>
  wrap('', text('pomelo-protocol', 'lib/protocol.js')) +
  (protobuf ? wrap('protobuf', text('pomelo-protobuf', 'lib/client/protobuf.js')) +
    'window.protobuf.decodeStr = window.protobuf.decode;\n' : '') +
  wrap('', text('pomelo-jsclient-websocket', 'lib/pomelo-client.js'));
