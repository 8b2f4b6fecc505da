// nodemailer's pool as its pages on pooled SMTP and on bulk mail say: as many connections as asked
// for, none ever renewed, no limit of its own.
'use strict';

const nodemailer = require('nodemailer');

exports.pool = (port, connections) =>
    nodemailer.createTransport({
        host: '127.0.0.1',
        port,
        pool: true,
        maxConnections: connections,
        maxMessages: Infinity,
        ignoreTLS: true,
        name: 'bench.example.com',
        disableFileAccess: true,
        disableUrlAccess: true,
    });
