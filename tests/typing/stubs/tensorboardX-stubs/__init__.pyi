from tensorboardX.writer import FileWriter as FileWriter
from tensorboardX.writer import SummaryWriter as SummaryWriter
