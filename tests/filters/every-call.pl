# A filter on Sendmail::Milter that uses every call of its API and prints each result. Listens at the unix socket
# named by its first argument.

use strict;
use warnings;
use Sendmail::Milter;
use Socket;

my ($socket) = @ARGV;

# One line of the log.
sub show {
    my $line = join(' ', map { defined $_ ? "'$_'" : 'undef' } @_);
    $line =~ s/\r?\n/\\n/g;
    syswrite(STDOUT, "$line\n");
}

sub connect_callback {
    my ($ctx, $name, $address) = @_;
    my ($port, $ip) = sockaddr_in($address);
    show('connect', $name, inet_ntoa($ip), $port);
    show('getsymval', $_, $ctx->getsymval($_)) for ('j', '{j}', '{daemon_name}');
    return SMFIS_CONTINUE;
}

sub helo_callback {
    my ($ctx, $name) = @_;
    show('helo', $name);
    return SMFIS_CONTINUE;
}

sub envfrom_callback {
    my ($ctx, @arguments) = @_;
    show('envfrom', @arguments);
    my $text = '';
    show('setpriv', $ctx->setpriv(\$text));
    return SMFIS_CONTINUE;
}

sub envrcpt_callback {
    my ($ctx, @arguments) = @_;
    show('envrcpt', @arguments);
    if ($arguments[0] eq '<nobody@example.com>') {
        show('setreply', $ctx->setreply('550', '5.1.1', 'no such user'));
        return SMFIS_REJECT;
    }
    if ($arguments[0] eq '<wait@example.com>') {
        show('setreply, bad', $ctx->setreply('250', '2.0.0', 'never'));
        return SMFIS_TEMPFAIL;
    }
    return SMFIS_DISCARD if $arguments[0] eq '<void@example.com>';
    return SMFIS_CONTINUE;
}

sub header_callback {
    my ($ctx, $name, $value) = @_;
    show('header', $name, $value);
    return SMFIS_CONTINUE;
}

sub eoh_callback {
    show('eoh');
    return SMFIS_CONTINUE;
}

sub body_callback {
    my ($ctx, $chunk, $length) = @_;
    my $text = $ctx->getpriv();
    $$text .= $chunk;
    show('body', $chunk, $length, $ctx->setpriv($text));
    return SMFIS_CONTINUE;
}

sub eom_callback {
    my ($ctx) = @_;
    my $text = $ctx->getpriv();
    show('addheader', $ctx->addheader('X-Added', 'at the end'));
    show('addheader, no name', $ctx->addheader('', 'never'));
    show('chgheader', $ctx->chgheader('Subject', 1, 'Changed'));
    show('chgheader, delete', $ctx->chgheader('MIME-Version', 1, ''));
    show('addrcpt', $ctx->addrcpt('<archive@example.com>'));
    show('delrcpt', $ctx->delrcpt('<bob@example.com>'));
    show('replacebody', $ctx->replacebody("$$text\r\nPassed on by Perl.\r\n"));
    show('setpriv', $ctx->setpriv(undef));
    return SMFIS_ACCEPT;
}

sub abort_callback {
    my ($ctx) = @_;
    show('abort', $ctx->setpriv(undef));
    return SMFIS_CONTINUE;
}

sub close_callback {
    my ($ctx) = @_;
    $ctx->setpriv(undef);
    show('close');
    return SMFIS_CONTINUE;
}

show('settimeout', Sendmail::Milter::settimeout(300));
show('setdbg', Sendmail::Milter::setdbg(0));
show('setconn', Sendmail::Milter::setconn("local:$socket"));
show('register', Sendmail::Milter::register('every-call', \%Sendmail::Milter::DEFAULT_CALLBACKS, SMFI_CURR_ACTS));
# One interpreter, never replaced: private data lives in the interpreter that made it.
show('main', Sendmail::Milter::main(1, 0));
