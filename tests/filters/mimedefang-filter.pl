# A filter for MIMEDefang that uses all that it can do to mail: each kind of refusal, and each kind of change.

$AdminAddress = 'postmaster@example.com';
$AdminName = 'Postmaster';
$DaemonAddress = 'mimedefang@example.com';

sub filter_relay {
    my ($ip) = @_;
    return ('REJECT', "no mail from $ip") if $ip eq '192.0.2.66';
    return ('CONTINUE', 'ok');
}

sub filter_helo {
    my ($ip, $name, $helo) = @_;
    return ('REJECT', "bad name $helo") if $helo eq 'bad.example.net';
    return ('CONTINUE', 'ok');
}

sub filter_sender {
    my ($sender) = @_;
    return ('TEMPFAIL', 'come back later') if $sender eq '<slow@example.org>';
    return ('CONTINUE', 'ok');
}

sub filter_recipient {
    my ($recipient) = @_;
    return ('REJECT', 'no such user', '550', '5.1.1') if $recipient eq '<nobody@example.com>';
    return ('CONTINUE', 'ok');
}

sub filter_begin {
    my ($entity) = @_;
}

sub filter {
    my ($entity, $name) = @_;
    return action_drop_with_warning("A file named $name was removed.") if $name =~ /\.exe$/;
    return action_accept();
}

sub filter_end {
    my ($entity) = @_;
    return action_bounce('not today', '554', '5.7.1') if $Subject eq 'Bounce';
    return action_discard() if $Subject eq 'Discard';
    action_change_header('Subject', "[checked] $Subject");
    action_add_header('X-Added', 'at the end');
    action_insert_header('X-Inserted', 'at the top', 0);
    action_delete_header('MIME-Version');
    add_recipient('<archive@example.com>');
    delete_recipient('<bob@example.com>');
    change_sender('<bounces@example.com>');
}

1;
